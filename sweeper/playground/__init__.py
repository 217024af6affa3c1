"""Side-by-side answers of registered versions: a worker process holds the models, its clients import no torch.

``client.Playground`` starts the worker, ``worker`` is its program, ``protocol`` their messages.
"""
