package space

// Stage is where a Space is in its life, in the Hub's words: huggingface_hub's SpaceStage
// (src/huggingface_hub/_space_api.py), and SLEEPING, which the Hub's pages show and that list lacks.
type Stage string

// The stages of a Space. The two that begin with RUNNING_ mean that the previous start still answers.
const (
	NoAppFile          Stage = "NO_APP_FILE"          // app_file is not there
	ConfigFailed       Stage = "CONFIG_ERROR"         // README.md's front matter is wrong
	Building           Stage = "BUILDING"             // the environment is being made
	BuildFailed        Stage = "BUILD_ERROR"          // it could not be made
	AppStarting        Stage = "APP_STARTING"         // the runner is up, the app does not answer yet
	Running            Stage = "RUNNING"              // the app answers
	RunningBuilding    Stage = "RUNNING_BUILDING"     // it answers while its next environment is being made
	RunningAppStarting Stage = "RUNNING_APP_STARTING" // it answers while its next start comes up
	RuntimeFailed      Stage = "RUNTIME_ERROR"        // the app ended, or did not answer in time
	Paused             Stage = "PAUSED"               // stopped by its owner; only its owner starts it again
	Sleeping           Stage = "SLEEPING"             // stopped for want of visitors; the next one starts it
	Stopped            Stage = "STOPPED"              // ended by the host
	Deleting           Stage = "DELETING"             // about to be gone
)
