"""What answers instructions and questions: local models by transformers or vLLM."""
