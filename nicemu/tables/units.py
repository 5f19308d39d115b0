"""Numbers of the engine's units: event kinds and the functions reached through the handler vector."""

# event kinds
(
    REQUESTER,
    DEPART,
    ARRIVE,
    COMMIT,
    READ_RESPONSE,
    ACK_TIMER,
    RNR_TIMER,
    COMMAND,
    COMMAND_DONE,
    FAULT_REPORT,
    RESUME,
    INTERRUPT,
    CQ_ARM,
    EQ_ARM,
    DOORBELL,
) = range(1, 16)
# functions reached only through the vector, so that they are compiled once
COMPLETER, RESPONDER, QP_ERROR, GATHER_FAILED, RETIRE = range(16, 21)
ACK, SQ_ERROR, SENT = range(21, 24)
# the fabric's: events, and what is reached only through the vector
LINK_FREE, SWITCH_IN, PAUSE, LINK_SEND, LINK_START = range(48, 53)
# queues and interrupts
CQ_TIMER, VECTOR_TIMER, DEVICE_EVENT, RELEASE_HELD, CQ_RIPEN = range(40, 45)
# a faulting queue tries again by itself
FAULT_RETRY = 36
# rings in memory of the program
PROGRAM_RING = 38
# what hardly any firmware asks for
RECV_TELLS, MISPLACE = 45, 46
# congestion control
CONGESTION_TIMER = 37
# raw Ethernet frames
RAW_BUILD, RAW_DEPART, RAW_ARRIVE, RAW_COMMIT, RAW_RESUME = range(30, 35)
# tag matching: an event, and what is reached only through the vector
TAG_OPERATION, TAG_TAKE, TAG_COMPLETE, TAG_FAILED, TAG_FLUSH, RENDEZVOUS = range(56, 62)
