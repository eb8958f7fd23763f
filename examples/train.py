"""Train any model by name: python examples/train.py --help."""

from pythae_geometric.commands.train import main

if __name__ == "__main__":
    main()
