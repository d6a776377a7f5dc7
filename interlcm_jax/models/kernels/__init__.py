"""Operations that pick their implementation by the platform they are compiled for."""
