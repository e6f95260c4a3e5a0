package gpu_test

import (
	"encoding/json"
	"strings"
	"testing"

	"spacehost/gpu"
)

func TestFaultRoundTrip(t *testing.T) {
	for text, want := range map[string]gpu.Fault{
		"lost":         {Kind: gpu.FaultLost},
		"hang":         {Kind: gpu.FaultHang},
		"memory-stuck": {Kind: gpu.FaultMemoryStuck},
		"xid=79":       {Kind: gpu.FaultXid, Xid: 79},
		"clear":        {Kind: gpu.FaultClear},
	} {
		got, err := gpu.ParseFault(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseFault(%q) = %+v (%s), %v; want %+v", text, got, got, err, want)
		}
		data, err := json.Marshal(want)
		var back gpu.Fault
		if err != nil || json.Unmarshal(data, &back) != nil || back != want {
			t.Errorf("%+v is %s in JSON (%v) and is read back as %+v", want, data, err, back)
		}
	}
}

func TestParseFaultRejectsUnknown(t *testing.T) {
	for _, text := range []string{"", "Lost", "xid", "xid=", "xid=0", "xid=-1", "xid=x", "xid=99999999999999999999", "clear "} {
		if got, err := gpu.ParseFault(text); err == nil || !strings.Contains(err.Error(), "memory-stuck") {
			t.Errorf("ParseFault(%q) = %+v, %v; want an error that lists the kinds", text, got, err)
		}
	}
}
