"""For development only, in no production wheel or image: the strict local Entra and the demo."""
