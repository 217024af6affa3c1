"""The life of a trial, whatever the executor: specification, claim, record, orders, recovery, retention."""
