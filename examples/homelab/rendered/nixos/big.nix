{ ... }:
{
  systemd.services."tabby" = {
    wantedBy = [ "multi-user.target" ];
    unitConfig = {
      Description = "TabbyAPI (tabby)";
      Wants = "network-online.target";
      After = "network-online.target";
      RequiresMountsFor = "/mnt/models";
      StartLimitIntervalSec = 3120;
      StartLimitBurst = 3;
    };
    serviceConfig = {
      Type = "exec";
      User = "tabby";
      WorkingDirectory = "/opt/tabbyAPI";
      Environment = [ "CUDA_DEVICE_ORDER=PCI_BUS_ID" ];
      ExecStart = "/opt/tabbyAPI/venv/bin/python main.py";
      Restart = "always";
      RestartSec = 30;
      TimeoutStartSec = 120;
      TimeoutStopSec = 30;
      LimitMEMLOCK = "infinity";
      LimitNOFILE = 1048576;
    };
  };
}
