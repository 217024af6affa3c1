"""Many trials on one resident base: slots, packed LoRA layers, and the step that they share.

A slot holds one trial. One pass takes the next rows of every slot, lays them end to end, runs the base once, applies
each slot's LoRA to its own tokens, and lets every slot step its own optimizer when its batch is full. A trial's numbers
are those that TRL's ``SFTTrainer`` gives for the same specification alone (``tests/contracts`` holds that).
"""
