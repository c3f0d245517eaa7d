//go:build tools

// Package controlplane pins the programs of the test control plane (see go.mod). It holds no code of its own.
package controlplane
