package gpu

// Architecture describes what CUDA supports on a Device.
type Architecture struct {
	Major, Minor    int // compute capability
	Multiprocessors int // 0 where the driver does not report it
}
