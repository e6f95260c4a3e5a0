package host

import (
	"errors"
	"fmt"
	"net"
	"os"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/egress"
)

// policy translates the settings. checkEgress has refused what the mechanism does not offer.
func (s *spaceRun) policy() egress.Policy {
	set := s.settings().Egress
	p := egress.Policy{Reach: s.settings().Reach}
	switch {
	case set.Mode == config.EgressNone:
		p.Mode = egress.ModeNone
	case set.Mode == config.EgressListed && len(set.Names) > 0:
		p.Mode, p.Names, p.Ports = egress.ModeNames, set.Names, set.Ports
	case set.Mode == config.EgressListed:
		p.Mode, p.Ports = egress.ModeAll, set.Ports
	default:
		p.Mode = egress.ModeHub
	}
	return p
}

// checkEgress refuses settings that the network of a sandbox does not offer.
func (s *spaceRun) checkEgress() error {
	if s.settings().Egress.Mode == config.EgressAll {
		return s.settings().Places["egress"].Mistake("connections to any port are not available in this version; list the ports, such as :443,:5432")
	}
	if err := s.policy().Validate(); err != nil {
		return s.settings().Places["egress"].Mistake("%w", err)
	}
	return nil
}

// openEgress reads the proxy of the operator, through which the connections of all Spaces go.
func (h *Host) openEgress() (err error) {
	for _, s := range h.all() {
		if s.isSandboxed() {
			if err := s.checkEgress(); err != nil {
				return err
			}
		}
	}
	if h.proxy, err = egress.ProxyFromEnvironment(os.Getenv); err != nil {
		return fmt.Errorf("proxy for the Spaces: %w", err)
	}
	return nil
}

func (s *spaceRun) newEgress(policy egress.Policy) (*egress.Egress, error) {
	return egress.New(egress.Config{
		Space: s.space().Name, Policy: policy, Proxy: s.host.proxy, Connections: s.settings().Limits.Connections,
		Logger: s.host.log.Named("egress"),
	})
}

// lastRefusal describes the last destination that the rules refused to the current start; "" if there is none.
func (s *spaceRun) lastRefusal() string {
	if s.isOnNode() {
		return s.nodeUse().Refusal
	}
	return s.currentNetwork().lastRefusal()
}

// traffic returns the traffic of the current start. ok is false if it has no network of its own, or its node has not answered.
func (s *spaceRun) traffic() (stats egress.Stats, ok bool) {
	if s.isOnNode() {
		use := s.nodeUse()
		return use.Traffic, use.Instance != ""
	}
	n := s.currentNetwork()
	if n == nil || n.egress == nil {
		return stats, false
	}
	return n.egress.Stats(), true
}

// EgressStats returns the traffic of the current start of each Space with a network of its own.
func (h *Host) EgressStats() map[string]egress.Stats {
	all := map[string]egress.Stats{}
	for _, s := range h.all() {
		if stats, ok := s.traffic(); ok {
			all[s.space().Name] = stats
		}
	}
	return all
}

func (s *spaceRun) logError(message string, err error) {
	s.host.log.Error(message, zap.String("space", s.space().Name), zap.Error(err))
}

// logEnd logs a part of the network that ended before its start did.
func (s *spaceRun) logEnd(part string, err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		s.logError(part+" of a space failed", err)
	}
}
