package gpu

// Architecture is what CUDA can do on a Device.
type Architecture struct {
	Major, Minor    int // compute capability
	Multiprocessors int // 0 where the driver does not tell
}
