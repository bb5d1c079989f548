"""Dataset distillation in PyTorch: the methods, and nothing about jobs, databases or HTTP."""
