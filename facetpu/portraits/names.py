"""First names of many languages, for people who do not exist."""

from __future__ import annotations

import numpy as np

NAMES = """
Aaliyah Abdul Abebe Adela Adriana Agnes Ahmed Aiko Aino Akira Alba Aleksi Alessia Alice Alina Amara Amelie
Amina Amir Ana Anaïs Anders András Aneta Ángel Anika Anna Anton Antónia Anwar Aoife Ariel Armin Arthur Arun
Asha Astrid Asuka Axel Aya Ayşe Aziz Balázs Barbora Bashir Beatriz Ben Benedikt Bilal Bintu Birgit Björn
Bogdan Boris Branka Brigita Bruno Camila Carlos Carmen Cecilia Chiara Chidi Chiyo Christos Ciara Claire
Clara Cosmin Dalia Dana Daniel Daria David Deepa Denis Dessa Diego Dilara Dimitra Dina Divya Djamila Dominik
Dora Ebba Edith Eduardo Efua Eirik Ela Elena Eleni Élise Elias Elif Elin Ella Emeka Emil Emma Eric Erik Esra
Ester Esther Eva Ewa Fabian Farid Fatima Federica Felix Ferenc Filip Finn Fiona Fleur Florin Francesca Franz
Freya Frida Gabriel Gaia Georgi Giulia Goran Grace Greta Guillaume Gustav Hadi Hana Hannah Hans Haruka
Hassan Hector Hedda Heidi Helena Henrik Hiroshi Hoa Hugo Ibrahim Ida Ignacio Ilona Imani Imre Inés Inga
Ingrid Ioana Irena Iris Isabel Isak Ishaan Ivan Ivana Jakub Jamal Jan Jana Jasmin Javier Jelena Jens Jiho
Jin Joana Johanna Jonas Jorge José Josefine Juan Julia Jun Kaito Kamila Karel Karim Karin Katarina Kateryna
Katya Kavita Keiko Kenji Khadija Kiran Klaus Kofi Kwame Laila Lars Laszlo Laura Lea Leila Lena Leo Leonor
Levent Li Liam Lidia Lin Linnea Liv Livia Lola Lorenzo Lotte Louis Lucía Luka Łukasz Luis Lunga Madina Mads
Magda Mahmoud Mai Maja Malik Manuel Marc Marek Maria Mariam Marta Martin Mateo Matilda Matteo Maya Mehmet
Mei Meera Miguel Mihai Mikko Mila Milan Milica Mina Minh Mira Miriam Mohan Mona Musa Nadia Nanami Naoko Nia
Nico Nikolai Nila Nina Noa Noah Noor Nora Nuno Nuria Oana Olga Oliver Olivia Omar Ondřej Oona Orla Oscar
Otto Pablo Paola Paul Pavel Pedro Pelin Per Petra Pia Pierre Pilar Piotr Priya Radek Rafael Rahul Raisa
Ramón Rania Ravi Rebeca Renata René Rhys Ricardo Rina Rita Robin Rohan Roman Rosa Ruben Ruth Sabine Said
Sakura Salma Sam Samira Sana Sandro Sanna Sara Saša Saskia Sebastian Selin Serena Sergio Shirin Shreya Signe
Silvia Simon Sina Sofia Søren Stefan Stella Suki Sunita Sven Svetlana Tadeo Tamar Tamara Tapio Tarek Tatiana
Teresa Theo Thomas Tiago Tilda Tina Tomás Tove Tuan Ulla Uma Valeria Vanda Vera Veronika Victor Viktor Vilma
Vincent Violeta Wanda Wei Wiktor William Xavier Ximena Yael Yana Yara Yasmin Yoko Yosef Yuki Yusuf Yves
Zahra Zara Zita Zoé Zofia Zoran Zsófia
""".split()  # noqa: SIM905  (a list would be a name a line)


def draw_names(count: int, seed: int) -> list[str]:
    """``count`` names, no two alike: first names while they last, then double names."""
    rng = np.random.default_rng([78, seed])
    names = [str(name) for name in rng.permutation(NAMES)]
    taken = set(names)
    while len(names) < count:
        double = "-".join(str(name) for name in rng.choice(NAMES, 2, replace=False))
        if double not in taken:
            taken.add(double)
            names.append(double)
    return names[:count]
