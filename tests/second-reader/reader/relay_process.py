"""The real relay, as its operator starts it: unprivileged, in a temporary directory, on a free port."""

import json
import os
import pathlib
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


def relay_binary():
    """`MORTISE_RELAY`, or where cargo puts it."""
    named = os.environ.get("MORTISE_RELAY")
    if named:
        return pathlib.Path(named)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return target / "debug" / "mortise-relay"


class RelayProcess:
    """Runs while the `with` block does; `pin` is the fingerprint of its key."""

    def __init__(self, directory):
        self._data = pathlib.Path(directory) / "relay"

    def __enter__(self):
        made = subprocess.run(
            [relay_binary(), "init", "--data", self._data, "--public-address", "127.0.0.1:4433", "--json"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        self.pin = bytes.fromhex(json.loads(made.stdout)["fingerprint"])
        with open(self._data.parent / "relay.log", "wb") as log:
            self._process = subprocess.Popen(
                [relay_binary(), "run", "--data", self._data, "--listen", "127.0.0.1:0", "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("the relay did not start: " + (self._data.parent / "relay.log").read_text())
        host, port = json.loads(line)["address"].rsplit(":", 1)
        self.address = host, int(port)
        return self

    def claim(self):
        """A link that founds one organisation."""
        made = subprocess.run(
            [relay_binary(), "claim-token", "--data", self._data, "--json"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        return json.loads(made.stdout)["claim_link"]

    def stop(self):
        """SIGTERM, as its operator does."""
        self._process.terminate()

    def __exit__(self, *_):
        self.stop()
        self._process.wait(timeout=30)
        self._process.stdout.close()
