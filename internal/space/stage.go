package space

// Stage is the state of a Space in the Hub's words: huggingface_hub's SpaceStage (src/huggingface_hub/_space_api.py),
// SLEEPING, which the Hub's pages show but that list lacks, and UNRESPONSIVE, which is this host's own.
type Stage string

// The stages of a Space. RUNNING_BUILDING and RUNNING_APP_STARTING mean that the previous start still answers.
const (
	NoAppFile          Stage = "NO_APP_FILE"          // app_file does not exist
	ConfigFailed       Stage = "CONFIG_ERROR"         // README.md's front matter is wrong
	Building           Stage = "BUILDING"             // the environment is being created
	BuildFailed        Stage = "BUILD_ERROR"          // the environment could not be created
	AppStarting        Stage = "APP_STARTING"         // the runner has started, the app does not answer yet
	Running            Stage = "RUNNING"              // the app answers
	RunningBuilding    Stage = "RUNNING_BUILDING"     // the app answers while its next environment is being created
	RunningAppStarting Stage = "RUNNING_APP_STARTING" // the app answers while its next start is in progress
	RuntimeFailed      Stage = "RUNTIME_ERROR"        // the app exited, or did not answer in time
	Paused             Stage = "PAUSED"               // stopped by its owner; only the owner can restart it
	Sleeping           Stage = "SLEEPING"             // stopped while idle; the next visitor starts it
	Unresponsive       Stage = "UNRESPONSIVE"         // the app was RUNNING and does not answer; the Hub has no such stage
	Stopped            Stage = "STOPPED"              // stopped by the host
	Deleting           Stage = "DELETING"             // being deleted
)

// IsUp reports whether the app has launched and its process runs.
func (s Stage) IsUp() bool { return s == Running || s == Unresponsive }

// IsFailed reports whether a Space that should run does not, because of an error.
func (s Stage) IsFailed() bool {
	return s == NoAppFile || s == ConfigFailed || s == BuildFailed || s == RuntimeFailed
}

// OnHub returns the stage for clients of the Hub, which know no UNRESPONSIVE. They report RUNTIME_ERROR in a sentence, and
// would wait for a RUNNING Space.
func (s Stage) OnHub() Stage {
	if s == Unresponsive {
		return RuntimeFailed
	}
	return s
}
