"""From the configuration to objects of the doors, of Entra and of the pod's authority.

What each needs of a section is named here, so that no section has to be like the object it describes.
"""
