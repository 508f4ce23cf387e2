"""Runs of pretraining in processes of their own, without each of them importing torch and Lightning anew.

Reads a JSON object a line. ``{"environment": ..., "run": ...}`` divides this process, runs
:func:`bulkformer_tl.train.pretrain` in the new one and answers its id; ``{"wait": id}`` answers its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback


def run(request):
    import numpy as np
    import torch

    import bulkformer_tl as bf
    from bulkformer_tl._vocabulary import GeneVocabulary

    os.environ.update(request["environment"])
    torch.set_num_threads(1)
    given = request["run"]
    if "graph" in given:
        edges, weights = given["graph"]
        given["graph"] = np.array(edges), np.array(weights, dtype=np.float32)
    bf.train.pretrain(
        given.pop("corpus"),
        bf.train.PretrainConfig.from_dict(given.pop("config")),
        vocabulary=GeneVocabulary(np.array(given.pop("vocabulary"), dtype=str), name="sixty"),
        **given,
    )


def answer(number):
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main():
    import lightning.pytorch  # noqa: F401

    import bulkformer_tl.models
    import bulkformer_tl.train._journal
    import bulkformer_tl.train._module  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]))
            continue
        pid = os.fork()
        if pid:
            answer(pid)
            continue
        code = 0
        try:
            # what a run prints must not end up between the answers
            os.dup2(2, 1)
            # one process that failed must not leave another one waiting for ever
            signal.alarm(200)
            run(request)
        except BaseException:  # noqa: BLE001  whatever it was, this process ends here
            traceback.print_exc()
            code = 1
        os._exit(code)


if __name__ == "__main__":
    main()
