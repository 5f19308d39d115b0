"""How the objects of an importable pyverbs behave without a device, as JSON: `python pyverbs_values.py PACKAGE`.

Makes every class that needs no device, gives each of its settable properties good and bad values, prints it, and
passes numbers to every function that names them; what came back or was raised stands under the words that did it.
"""

import copy
import importlib
import json
import logging
import os
import pickle
import pkgutil
import sys
import weakref

logging.disable(logging.CRITICAL)

VALUES = {
    "1": 1,
    "2.7": 2.7,
    "True": True,
    "-1": -1,
    "2**8": 2**8,
    "2**16": 2**16,
    "2**31": 2**31,
    "2**32": 2**32,
    "2**64": 2**64,
    "'a'": "a",
    "None": None,
    "[]": [],
}
ARGUMENTS = {  # for classes that cannot be made without
    "QueryDeviceExInput": [(1,)],
    "AllocDmAttr": [(64,)],
    "SGE": [(4096, 64, 7)],
    "XRCDInitAttr": [(3, 0, -1)],
    "TcpUdpSpec": [(0x40,)],
    "ParentDomainInitAttr": [(None,)],
    "PyverbsError": [("text",), ("text", 22)],
    "PyverbsRDMAError": [("text",), ("text", 95), ("text", -22)],
    "PyverbsUserError": [("text",)],
    "GID": [(), ("fe80:0000:0000:0000:0000:0000:0000:0001",), ("fe80::1",), (5,)],
    "GlobalRoute": [],
    "GRH": [],
    "CMEventChannel": [],
    "AddrInfo": [],
}
NUMBERS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 32, 64, 127, 128, 129, 255, 256, 1 << 17, 1 << 20, (1 << 32) - 1]


def main(name):
    package = importlib.import_module(name)
    said = {}
    for found in pkgutil.iter_modules(package.__path__):
        if found.ispkg or found.name.startswith("_") or found.name in ("mem_alloc", "dma_util", "enums", "cm_enums"):
            continue
        module = importlib.import_module(f"{name}.{found.name}")
        for item, value in sorted(vars(module).items()):
            if item.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, type):
                if not hasattr(value, "__members__"):
                    said.update(of_class(f"{found.name}.{item}", value))
            elif item.endswith("_to_str") or item.startswith("translate_") or item in ("inc_rkey", "mwtype2str"):
                said.update(of_function(f"{found.name}.{item}", value))
    json.dump(said, sys.stdout, indent=1, sort_keys=True)


def outcome(call):
    """What `call` returns or raises, in a process of its own: the real package follows null pointers."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, said_by(call).encode("utf-8", "replace")[:60000])
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return "the process dies" if status else text


def said_by(call):
    try:
        return plain(call())
    except Exception as error:
        return f"{type(error).__name__}: {plain(str(error))}"


def plain(value):
    return repr(value).replace("nicemu.pyverbs.", "pyverbs.")


def of_function(name, function):
    for number in NUMBERS:
        yield f"{name}({number})", outcome(lambda number=number: function(number))


def of_class(name, cls):
    for arguments in ARGUMENTS.get(cls.__name__, [()]):
        made = f"{name}{arguments}"
        constructed = outcome(lambda arguments=arguments: cls(*arguments) and "made")
        if constructed != "'made'":
            yield made, constructed
            continue
        instance = cls(*arguments)
        yield f"str({made})", outcome(lambda instance=instance: printed(instance))
        yield from of_properties(made, instance, lambda arguments=arguments: cls(*arguments))
        yield f"{made}.no_such_name = 1", type_of_error(lambda instance=instance: setattr(instance, "no_such_name", 1))
        yield f"weakref.ref({made})", type_of_error(lambda instance=instance: weakref.ref(instance))
        yield f"copy.copy({made})", type_of_error(lambda instance=instance: copy.copy(instance))
        yield f"copy.deepcopy({made})", type_of_error(lambda instance=instance: copy.deepcopy(instance))
        yield f"pickle.dumps({made})", type_of_error(lambda instance=instance: pickle.dumps(instance))
        yield f"{made} == itself made again", outcome(lambda i=instance, a=arguments: i == cls(*a))


def printed(instance):
    return "an address" if " at 0x" in str(instance) else str(instance)


def type_of_error(call):
    return outcome(lambda: call() and None).partition(":")[0]


def of_properties(made, instance, again):
    for name in sorted(dir(type(instance))):
        attribute = getattr(type(instance), name, None)
        if name.startswith("_") or name == "logger" or callable(attribute):
            continue
        yield f"{made}.{name}", outcome(lambda name=name: getattr(instance, name))
        for text, value in VALUES.items():
            fresh = again()

            def assign(fresh=fresh, name=name, value=value):
                setattr(fresh, name, value)
                return getattr(fresh, name)

            yield f"{made}.{name} = {text}", outcome(assign)


if __name__ == "__main__":
    main(sys.argv[1])
