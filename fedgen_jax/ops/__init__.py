"""Operations that several rooms share: how a convolution is lowered, and resampling by matrices."""
