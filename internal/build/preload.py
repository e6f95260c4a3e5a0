"""Downloads one line of preload_from_hub. Arguments: REPO COMMIT [FILE...]; an empty COMMIT is main.

The exit status names the kind of failure. While the Hub does not answer, complete files in the cache are enough.
"""
import sys

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

repo, commit, *files = sys.argv[1:]
# The names of huggingface_hub's errors, most specific first: a missing cache entry means that the Hub did not answer.
STATUSES = {"LocalEntryNotFoundError": 6, "EntryNotFoundError": 4, "RevisionNotFoundError": 5, "RepositoryNotFoundError": 3}


def status(error):
    names = [one.__name__ for one in type(error).__mro__]
    return next((status for name, status in STATUSES.items() if name in names), 1)


def answers():
    """Asks once: for each file huggingface_hub 0.36 tries for 24 seconds to reach a Hub that does not answer."""
    try:
        HfApi().model_info(repo, revision=commit or None, timeout=10, token=False)
    except Exception as error:
        if status(error) != 1:
            raise
        print(f"The Hub does not answer, looking into the cache: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True


try:
    options = {"revision": commit or None, "token": False, "local_files_only": not answers()}
    if files:
        for file in files:
            print(hf_hub_download(repo, file, **options), flush=True)
    else:
        print(snapshot_download(repo, **options))
except Exception as error:
    print(f"Error: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(status(error))
