"""Two processes do what one does with the summed batch."""

from __future__ import annotations

import socket

import pandas as pd
import torch

import bulkformer_tl as bf


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_equal_one(forks, files, config, vocabulary, graph, tmp_path):
    # without dropout, whose random numbers belong to micro-batches
    settled = config(epochs=1.0, micro_batch_size=4)
    out, port = tmp_path / "two", free_port()
    pids = [
        forks.start(
            environment={
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
                **{"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
                **{"TORCHELASTIC_RUN_ID": "none", "GLOO_SOCKET_IFNAME": "lo"},
            },
            corpus=[str(path) for path in files],
            config=settled.to_dict(),
            out=str(out),
            vocabulary=vocabulary.ids.tolist(),
            graph=[part.tolist() for part in graph],
            devices=2,
        )
        for rank in range(2)
    ]
    one = bf.train.pretrain(files, settled, out=tmp_path / "one", vocabulary=vocabulary, graph=graph)
    assert [forks.wait(pid) for pid in pids] == [0, 0]
    two = bf.models.load(out)
    weights = two.network.state_dict()
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6)
    histories = [pd.read_csv(tmp_path / name / "training" / "history.csv") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*histories, rtol=0, atol=1e-6)
