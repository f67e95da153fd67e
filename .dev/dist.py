exec(open('/work/main/.dev/hold4.py').read().split("V=eval")[0].replace("sys.argv","['x','','','']+sys.argv"))
for c in (127,145,121,143,131,104,109,111,129,135,137,114):
    z=torch.load(f'/work/scratch/lat/{c}.pt',weights_only=False); t=z['truth']; x=z['lat'].float()
    r=z['ref'].reshape(1,-1,32,32).float(); body,own=z['body'][0,1:],z['body'][0,0]
    head,free=fr(body,.8,.8); of=fr(own[None],.8,.8)[1][0]; seen=free.sum(0); ok=(seen>=3)&(of>0)
    d=(x-r).square().mean(1); D=((_smooth(d*free)/_smooth(free).clamp(min=1e-3)*free).sum(0)/seen.clamp(min=1))[ok]
    m=(x*free[:,None]).sum(0)/seen.clamp(min=1); v=(((x-m).square().mean(1)*free).sum(0)/seen.clamp(min=1))[ok]
    dx=((x[1:]-x[:-1]).square().mean(1)*free[1:]*free[:-1]).sum(0)/(free[1:]*free[:-1]).sum(0).clamp(min=1)
    b=((m-r[0]).square().mean(0))[ok]
    q=lambda a:[round(k,4) for k in torch.quantile(a,torch.tensor([.1,.5,.9])).tolist()]
    print(c,'still' if t.still[0] else 'alive','D',q(D),'var',q(v),'step',q(dx[ok]),'bias',q(b))
