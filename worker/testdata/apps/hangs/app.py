import time


def load():
    time.sleep(60)


load()
