package lease

import (
	"sync"
	"time"
)

// forecastCache holds the last forecasts, because every waiting client queries every few seconds.
type forecastCache struct {
	mu       sync.Mutex
	machines map[string]machineForecasts
}

type machineForecasts struct {
	at        time.Time
	forecasts map[*Lease]Forecast
}

// forecastMaxAge is the maximum age of a cached forecast.
const forecastMaxAge = time.Second

func (b *Broker) forecast(lease *Lease) (f Forecast, waits bool) {
	b.forecasts.mu.Lock()
	defer b.forecasts.mu.Unlock()
	known := b.forecasts.machines[lease.Machine]
	f, waits = known.forecasts[lease]
	if !waits || time.Since(known.at) >= forecastMaxAge {
		var sim *simulation
		b.do(func(all *schedulers) {
			if sc := all.of(lease.Machine); sc != nil {
				sim = sc.simulation()
			}
		})
		if sim == nil { // the Broker has stopped, or the machine has left
			delete(b.forecasts.machines, lease.Machine)
			return Forecast{}, false
		}
		if b.forecasts.machines == nil {
			b.forecasts.machines = map[string]machineForecasts{}
		}
		known = machineForecasts{time.Now(), sim.forecasts()}
		b.forecasts.machines[lease.Machine] = known
		f, waits = known.forecasts[lease]
	}
	return f, waits
}
