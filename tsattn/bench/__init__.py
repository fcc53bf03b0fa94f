"""Speed, measured beside what people use today: `tsattn bench kernels` and `tsattn bench train`."""
