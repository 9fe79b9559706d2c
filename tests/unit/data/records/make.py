"""One record as torch-geometric pickles it: `python make.py FILE`, in an environment that has it.

Of 1.7.2 only `data/data.py` was loaded, with empty modules in place of what it imports but does not
use for this.
"""

import pickle
import sys
from pathlib import Path

import torch
from torch_geometric.data import Data

record = Data(
    pos=torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.25, 2.0]]),
    cell=torch.eye(3)[None] * 9.0,
    atomic_numbers=torch.tensor([29.0, 8.0]),
    natoms=2,
    tags=torch.tensor([0, 2]),
    fixed=torch.tensor([1.0, 0.0]),
    edge_index=torch.tensor([[0, 1], [1, 0]]),
    force=torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]]),
    y=-1.25,
    sid=123,
    fid=torch.tensor([7]),
)
Path(sys.argv[1]).write_bytes(pickle.dumps(record, protocol=-1))
