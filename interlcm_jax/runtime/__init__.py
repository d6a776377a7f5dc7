"""How programs run: batches over devices, host work beside them, the compiler, several processes."""
