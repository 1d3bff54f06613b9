package version

// baseURL is where releases are, set by the linker; "" in a build that was not
// made for a site.
var baseURL = ""

// BaseURL is the address below which this build looks for releases, "" if it
// knows of none.
func BaseURL() string { return baseURL }
