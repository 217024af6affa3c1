"""Many trials on one resident base model: slots, packed LoRA layers, and shared passes.

A slot holds one trial. One pass concatenates the next rows of every slot, runs the base once, applies each slot's LoRA
to its own tokens, and steps a slot's own optimizer when its batch is full. A trial's numbers are those of TRL's
``SFTTrainer`` for the same specification alone (``tests/contracts`` checks that).
"""
