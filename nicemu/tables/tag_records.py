"""Record dtypes of tag matching: the list of a TM-SRQ, and its tags."""

from nicemu.tables.record import record

TAG_LIST = record(
    "first", "count",        # rows of TAG
    "head", "tail",          # posted tags in the order of matching: TAG rows, 0: none
    "ring", "slots", "doorbell_record",  # operations: counters of the library and of the device
    "next",                  # next operation
    "busy",                  # an operation is being fetched
    "qpn",                   # QP number that completions of operations carry
    "unexpected",            # messages that matched nothing, 16 bits
    "handled",               # how many of them software says it has handled
)  # fmt: skip
"""The tag list of a TM-SRQ, in the row of its SRQ."""

TAG = record(
    "list",                  # row of its list
    "state",                 # a ``tag_list.TagState``
    "active",                # may match: software and device were in step since it was added
    "tag", "mask",
    "next", "previous",
)  # fmt: skip
