package lease

import (
	"sync"
	"time"
)

// forecastCache holds the last forecasts, because every waiting client queries every few seconds.
type forecastCache struct {
	mu        sync.Mutex
	at        time.Time
	forecasts map[*Lease]Forecast
}

// forecastMaxAge is the maximum age of a cached forecast.
const forecastMaxAge = time.Second

func (b *Broker) forecast(lease *Lease) (f Forecast, waits bool) {
	b.forecasts.mu.Lock()
	defer b.forecasts.mu.Unlock()
	f, waits = b.forecasts.forecasts[lease]
	if !waits || time.Since(b.forecasts.at) >= forecastMaxAge {
		var sim *simulation
		if !b.do(func(sc *scheduler) { sim = sc.simulation() }) {
			return Forecast{}, false
		}
		b.forecasts.forecasts, b.forecasts.at = sim.forecasts(), time.Now()
		f, waits = b.forecasts.forecasts[lease]
	}
	return f, waits
}
