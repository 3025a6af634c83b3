"""First names of many languages, for people who do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

WOMEN = """
Aaliyah Adela Adriana Agnes Aiko Aino Alba Alessia Alice Alina Amara Amelie Amina Ana Anaïs Aneta Anika Anna
Antónia Aoife Asha Astrid Asuka Aya Ayşe Barbora Beatriz Bintu Birgit Branka Brigita Camila Carmen Cecilia
Chiara Chiyo Ciara Claire Clara Dalia Dana Daria Deepa Dessa Dilara Dina Divya Djamila Dora Ebba Edith Efua
Ela Elena Eleni Élise Elif Elin Ella Emma Esra Ester Esther Eva Ewa Fatima Federica Fiona Fleur Francesca
Freya Frida Gaia Giulia Grace Greta Hana Hannah Haruka Hedda Heidi Helena Hoa Ida Ilona Imani Inés Inga
Ingrid Ioana Irena Iris Isabel Ivana Jana Jasmin Jelena Jiho Joana Johanna Josefine Julia Kamila Karin
Katarina Kateryna Katya Kavita Keiko Khadija Laila Laura Lea Leila Lena Leonor Lidia Lin Linnea Liv Livia
Lola Lotte Lucía Madina Magda Mai Maja Maria Mariam Marta Matilda Maya Meera Mei Mila Milica Mina Mira
Miriam Mona Nadia Nanami Naoko Nia Nila Nina Noor Nora Nuria Oana Olga Olivia Oona Orla Paola Pelin Petra
Pia Pilar Priya Raisa Rania Rebeca Renata Rina Rita Rosa Ruth Sabine Sakura Salma Samira Sana Sanna Sara
Saskia Selin Serena Shirin Shreya Signe Silvia Sofia Stella Suki Sunita Svetlana Tamar Tamara Tatiana Teresa
Tilda Tina Tove Ulla Uma Valeria Vanda Vera Veronika Vilma Violeta Wanda Ximena Yael Yana Yara Yasmin Yoko
Zahra Zara Zita Zofia Zoé Zsófia
""".split()  # noqa: SIM905  (a list would be a name a line)

MEN = """
Abdul Abebe Ahmed Akira Aleksi Amir Anders András Ángel Anton Anwar Ariel Armin Arthur Arun Axel Aziz Balázs
Bashir Ben Benedikt Bilal Björn Bogdan Boris Bruno Carlos Chidi Christos Cosmin Daniel David Denis Diego
Dimitri Dominik Eduardo Eirik Elias Emeka Emil Eric Erik Fabian Farid Felix Ferenc Filip Finn Florin Franz
Gabriel Georgi Goran Guillaume Gustav Hadi Hans Hassan Hector Henrik Hiroshi Hugo Ibrahim Ignacio Imre Isak
Ishaan Ivan Jakub Jamal Jan Javier Jens Jin Jonas Jorge José Juan Jun Kaito Karel Karim Kenji Kiran Klaus
Kofi Kwame Lars Laszlo Leo Levent Li Liam Lorenzo Louis Luis Luka Łukasz Lunga Mads Mahmoud Malik Manuel
Marc Marek Martin Mateo Matteo Mehmet Miguel Mihai Mikko Milan Minh Mohan Musa Nico Nikolai Noah Nuno Oliver
Omar Ondřej Oscar Otto Pablo Paul Pavel Pedro Per Pierre Piotr Radek Rafael Rahul Ramón Ravi René Rhys
Ricardo Robin Rohan Roman Ruben Said Sam Sandro Saša Sebastian Sergio Simon Søren Stefan Sven Tadeo Tapio
Tarek Theo Thomas Tiago Tomás Tuan Victor Viktor Vincent Wei Wiktor William Xavier Yosef Yuki Yusuf Yves
Zoran
""".split()  # noqa: SIM905


def draw_names(men: Iterable[bool], seed: int) -> list[str]:
    """A name for each of some people, no two alike: first names while they last, then double names.

    Args:
        men: whether each of them is to have a man's name.
        seed: of the names; more people begin with the same names.
    """
    rng = np.random.default_rng([78, seed])
    women_left, men_left = _names(WOMEN, rng.spawn(1)[0]), _names(MEN, rng.spawn(1)[0])
    return [next(men_left if man else women_left) for man in men]


def _names(singles: list[str], rng: np.random.Generator) -> Iterator[str]:
    """All of ``singles`` in a drawn order, then pairs of them."""
    yield from map(str, rng.permutation(singles))
    taken: set[str] = set()
    while len(taken) < len(singles) * (len(singles) - 1):
        double = "-".join(rng.choice(singles, 2, replace=False))
        if double not in taken:
            taken.add(double)
            yield double
