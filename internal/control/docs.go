package control

// docs are the summaries and query parameters of the routes of this package, by method and path. A test requires one for each route
// of RegisterAdmin.
var docs = map[string]Doc{
	"GET /account": {Summary: "What an account has used and has left.", Query: ofAccount(AccountParameters)},
	"GET /audit": {Summary: "What operators have changed, newest first, also refused requests.", Query: []Parameter{
		{Name: "since", Text: "time in RFC 3339 (default: all)"}, {Name: "limit", Text: "number of entries (default: 200)"},
	}},
	"GET /clock":       {Summary: "The time of the host's clock."},
	"POST /credit":     {Summary: "Adds prepaid seconds to an account, or removes them."},
	"GET /explain":     {Summary: "Why a call of an account would be refused or has to wait, and its latest refusals.", Query: ofAccount(ExplainParameters)},
	"GET /gpu":         {Summary: "The GPUs with their memory, health, drains and the holders of their slots."},
	"POST /gpu/drain":  {Summary: "Stops new calls on a GPU. Running calls continue."},
	"POST /gpu/rescan": {Summary: "Reads the GPUs of the machine again, and lends those that have joined."},
	"POST /gpu/return": {Summary: "Ends a drain, also a planned one."},
	"POST /grant":      {Summary: "Adds seconds to an account until its window ends, or runs for 24 hours."},
	"GET /healthz":     {Summary: "The state of the host and all its Spaces."},
	"GET /lease":       {Summary: "The open leases and the latest ended ones.", Query: []Parameter{{Name: "limit", Text: "number of ended leases (default: 20)"}}},
	"POST /lease/end":  {Summary: "Ends one waiting or running call, named by the first digits of its lease. Its payer is charged nothing."},
	"GET /lease/timeline": {Summary: "What the slots were used for between two times, as columns. With a step, calls within one step are one bar.", Query: []Parameter{
		{"from", "time in RFC 3339, such as 2026-11-30T14:00:00Z", true}, {"to", "time in RFC 3339", true},
		{Name: "step", Text: "level of detail in seconds; 0: each call is a bar, for at most 6 hours (default: 0, or a 2,000th of a longer period)"},
	}},
	"GET /ledger":               {Summary: "The lines of an account's ledger, newest first.", Query: ofAccount(LedgerParameters)},
	"GET /nodes":                {Summary: "The nodes that have joined, with the state of their connections."},
	"GET /pools":                {Summary: "The pools of jobs that become nodes, with what is wrong with them."},
	"GET /nodes/:name/explain":  {Summary: "Why no Space can start on a node, in sentences.", Errors: []int{404}},
	"POST /nodes/token":         {Summary: "Creates a join token. Only this answer contains its text.", Errors: []int{409}},
	"POST /nodes/:name/drain":   {Summary: "Takes a node out of service. It stays connected.", Errors: []int{404}},
	"POST /nodes/:name/return":  {Summary: "Puts a node back into service.", Errors: []int{404}},
	"POST /nodes/:name/revoke":  {Summary: "Ends the connection of a node at once, and refuses it from then on.", Errors: []int{404}},
	"DELETE /nodes/:name":       {Summary: "Removes a node without open leases, so that its name is free again.", Errors: []int{404, 409}},
	"GET /people":               {Summary: "The people of the host."},
	"POST /people":              {Summary: "Adds a person."},
	"PATCH /people/:name":       {Summary: "Changes the tier of a person, or the values that replace those of the tier."},
	"DELETE /people/:name":      {Summary: "Removes a person and revokes the person's tokens. The ledger is kept."},
	"POST /people/:name/tier":   {Summary: "Changes the tier of a person."},
	"GET /people/:name/tokens":  {Summary: "The tokens of a person, without their text."},
	"POST /people/:name/tokens": {Summary: "Creates a token. Only this answer contains its text."},
	"POST /prune":               {Summary: "Removes environments, clones, uploads and logs that no Space refers to.", Errors: []int{503}},
	"GET /quota":                {Summary: "The balances of all accounts."},
	"POST /rebuild":             {Summary: "Builds the environment of a Space again and restarts the Space."},
	"GET /host":                 {Summary: "Version, process and state folder of the host."},
	"GET /settings":             {Summary: "The configuration in force, defaults included, without secrets."},
	"GET /doctor":               {Summary: "Checks the machine as `spacehost doctor` does. It takes some seconds."},
	"GET /state":                {Summary: "The sizes of what the state folder contains. It reads every folder."},
	"GET /reload":               {Summary: "What a reload of the configuration file would change now.", Errors: []int{422}},
	"POST /reload":              {Summary: "Applies the configuration file again, or with dryRun only returns the difference.", Errors: []int{422}},
	"POST /reset":               {Summary: "Returns the seconds that were charged in the current window, and the runs of ended calls. The window does not move."},
	"POST /restart":             {Summary: "Restarts a Space. Running calls may end first, unless now is set."},
	"GET /tiers":                {Summary: "The tiers of the host."},
	"GET /tokens":               {Summary: "The tokens of all people, without their text."},
	"DELETE /tokens/:id":        {Summary: "Revokes a token."},
	"GET /usage": {Summary: "Sums of the calls that ended in a time, by person, Space, function, tier or group, in parts of the time.", Query: append(timeParameters[:2:2],
		Parameter{Name: "by", Text: "person (default), space, function, tier or group"},
		Parameter{Name: "bucket", Text: "length of a part in seconds, at least 60 (default: the whole time)"},
		Parameter{Name: "limit", Text: "number of rows (default: 20); the others become one"})},
	"GET /space": {Summary: "A Space with its last stages, its use of the machine in the last hour, and its limits.", Query: []Parameter{
		{"space", "name of the Space", true}, {Name: "limit", Text: "number of stages (default: 100)"},
	}},
	"GET /space/log": {Summary: "The last lines of a Space's log, or those before or after a position of an earlier answer.", Query: []Parameter{
		{"space", "name of the Space", true}, {Name: "kind", Text: "run (default) or build"}, {Name: "before", Text: "position: only older lines"},
		{Name: "after", Text: "position: only newer lines"}, {Name: "limit", Text: "number of lines (default: 500)"},
		{Name: "stream", Text: "only lines of stdout, stderr, host or build; may be repeated"}, {Name: "level", Text: "only lines of this level: error or warning"},
		{Name: "text", Text: "only lines with this text, in upper or lower case"},
	}},
	"POST /space/pause":   {Summary: "Stops a Space until it is resumed. Running calls may end first, unless now is set."},
	"POST /space/move":    {Summary: "Moves a Space to another node that its configuration names. Running calls may end first, unless now is set."},
	"POST /space/resume":  {Summary: "Starts a paused Space again."},
	"GET /via":            {Summary: "The Spaces that may not spend their visitors' seconds at other Spaces.", Query: []Parameter{{Name: "space", Text: "only this Space"}}},
	"POST /via":           {Summary: "Forbids or allows a Space to spend its visitors' seconds at other Spaces."},
	"GET /webhooks":       {Summary: "The webhooks, without their URLs."},
	"POST /webhooks/test": {Summary: "Sends a test notice to each webhook and waits for the answers."},
}

// timeParameters bound the calls and lines that are shown.
var timeParameters = []Parameter{{Name: "from", Text: "begin of the time, in RFC 3339"}, {Name: "to", Text: "end of the time, excluded"}}

// Query parameters of the requests that show one account, as views.Query reads them. Those of an admin also name the account.
var (
	AccountParameters = []Parameter{{Name: "space", Text: "only functions of this Space"}, {Name: "function", Text: "only this function"}}
	LedgerFilters     = append([]Parameter{{Name: "space", Text: "only lines of this Space"}, {Name: "function", Text: "only lines of this function"}, {Name: "kind", Text: "only lines of this kind: hold, settle, grant, reset or credit"}}, timeParameters...)
	LedgerParameters  = append(LedgerFilters[:5:5], Parameter{Name: "before", Text: "only lines with a smaller id: that of the last line of the page before"}, Parameter{Name: "limit", Text: "number of lines (default: 50, at most 10000)"})
	AdviceParameters  = append(AccountParameters[:2:2], timeParameters...)
	ExplainParameters = append(AccountParameters[:2:2],
		Parameter{Name: "seconds", Text: "declared duration of a call to explain"},
		Parameter{Name: "size", Text: "GPU size of that call: large or xlarge"},
		Parameter{Name: "via", Text: "Space that makes the call on the account's behalf"})
)

func ofAccount(more []Parameter) []Parameter {
	return append([]Parameter{{Name: "identity", Text: "account as the ledger writes it, such as user:ada, or the name of a person", Required: true}}, more...)
}
