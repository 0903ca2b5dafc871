"""The outside world of Entra: MSAL's legs, credentials, signing keys. The only door to `msal`."""
