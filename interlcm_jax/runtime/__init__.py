"""How programs run: batches over devices, host work alongside, the compiler, several processes."""
