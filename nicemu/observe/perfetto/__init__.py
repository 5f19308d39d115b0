"""The event log as a Perfetto trace: TrackEvents in Perfetto's own protobuf, for ui.perfetto.dev.

``proto``    numbers and bytes of the messages, in compiled code
``state``    the tables of the writer: what is open, and on which track
``tracks``   tracks that come up as they are needed, slices and counters
``queue_pairs``, ``faults``, ``threads``, ``packets``: what their events look like
``encode``   the kernel that turns rows of the trace table into packets
``shapes``   names and fields of events, as tables
``opening``  the first packets of a file: processes, blocks, links, counters
``log``      the writer, in the place of ``EventLog``
``decode``   reading it back

Every event is one packet whose category is the event's name and whose annotations are its fields; packets without a
category are what only pictures need: ends of slices, counters, tracks.
"""
