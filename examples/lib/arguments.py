"""What the benchmarks of speed take."""

import torch

from pythae_geometric.commands.arguments import at_least, parser


def timing_arguments(text):
    """The arguments of a benchmark that runs on any device; its threads are set, and all is said in
    a line."""
    p = parser(text)
    p.add_argument("--threads", type=at_least(1), help="threads of torch (default: its own choice)")
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, float32\n")
    return args
