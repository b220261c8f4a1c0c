package main

import (
	"net"
	"net/netip"
)

// linkURL begins the links to the API that others open: owners of destinations, and
// who reads a report. The machine's own name for itself, which is what other
// commands are told, is none of theirs.
func (s *server) linkURL() string {
	return "https://" + net.JoinHostPort(linkHost(s.config.APIAddress, s.config.Hosts, s.config.Domain, s.facts.MQTTAddress, s.apiHost()), portOf(s.apiLn.Addr()))
}

// linkHost chooses the name: where the API listens, if that is one address which
// others can reach; the first of the server's other names; below a domain that of the first tenant's devices,
// which the server's certificate has; or what is known on this machine.
func linkHost(listen string, hosts []string, domain, devices, local string) string {
	host, _, err := net.SplitHostPort(listen)
	ip, notIP := netip.ParseAddr(host)
	if err == nil && host != "" && host != "localhost" && (notIP != nil || !ip.IsUnspecified() && !ip.IsLoopback()) {
		return host
	}
	if len(hosts) > 0 {
		return hosts[0]
	}
	name, _, err := net.SplitHostPort(devices)
	if domain != "" && err == nil {
		return name
	}
	return local
}

func portOf(a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return ""
	}
	return port
}
