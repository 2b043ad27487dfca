"""The demonstration: Label Studio, Doubtless and a project of real images, in one terminal."""
