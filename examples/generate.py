"""Generate images from a trained model: python examples/generate.py --help."""

from pythae_geometric.commands.generate import main

if __name__ == "__main__":
    main()
