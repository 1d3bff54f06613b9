// Package uninstall shows that lite leaves no trace on a machine, and takes
// nothing of others along.
package uninstall
