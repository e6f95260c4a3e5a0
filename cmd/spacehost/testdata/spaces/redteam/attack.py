"""Registers attacks and runs them. An attack succeeds if it returns; its return value is the evidence."""
import concurrent.futures

ATTACKS = {}


class Refused(Exception):
    """The attack had no effect, and the system reported no error."""


def attack(name):
    def register(function):
        assert name not in ATTACKS, name
        ATTACKS[name] = function
        return function

    return register


class Facts(dict):
    """What the attacker knows: all that the test knows."""

    __getattr__ = dict.__getitem__


def run(name, facts):
    print(name, flush=True)  # the last lines name an attack that hangs
    try:
        return {"attack": name, "succeeded": True, "detail": str(ATTACKS[name](facts))[:4000]}
    except BaseException as error:  # SystemExit, too: each attack has a result
        return {"attack": name, "succeeded": False, "detail": f"{type(error).__name__}: {error}"[:4000]}


def run_all(facts, token):
    """Runs the attacks that facts name, several at a time: most of them wait. Attacks that fork run alone."""
    facts = Facts(facts, token=token)
    names = facts.get("names") or sorted(ATTACKS)
    alone = [name for name in names if ATTACKS[name].__module__ != "attacks_network"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(run, name, facts) for name in names if name not in alone]
        return [run(name, facts) for name in alone] + [one.result() for one in waiting]
