"""What a container's life costs with pyoci, measured against the least C program that leads the same life (floor.c). See ``main``."""
