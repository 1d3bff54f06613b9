// Package webhooks shows that no webhook, policy or aggregated API of a user's
// keeps a cluster from coming up, and that lite names the one that holds
// something up.
package webhooks
