"""Files: whole or not at all, safetensors, downloads, the Hugging Face hub, the user's folders."""
