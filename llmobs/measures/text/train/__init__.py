"""How the packaged weights are made: ``python -m llmobs.measures.text.train --data DIR``.

Needs scikit-learn, which nothing else in llmobs does. Same data, same weights, to the bit.
"""
