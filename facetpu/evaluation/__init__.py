"""How good a model is: pairs, people among strangers, classifiers, clusters, and the pages that show it."""
