package space

// The reasons in the ledger of calls that are cut off with the start of their Space. The timeline reads them. The name of an operator
// follows those that end with "by ".
const (
	EndedByHost    = "host stopped"
	EndedByRestart = "restarted by "
	EndedByRemoval = "removed by "
	EndedByPause   = "paused by "
	EndedByHang    = "space unresponsive"
	EndedByLeaving = "this machine is being given back" // the agent of its node leaves
)
