"""What operators and the kubelet ask over HTTP: health, metrics, status."""
