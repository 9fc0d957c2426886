"""How rows are touched: blocks, layout, kernels, moments, one way to run a pass over them, memory and progress."""
