"""Asking registered versions, side by side: a worker process holds the models, whoever asks imports no torch.

``client.Playground`` starts the worker, ``worker`` is its program, ``protocol`` what passes between the two.
"""
